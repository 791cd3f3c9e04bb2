// Typed reading of a JSON object: every key must be known, every value of the right type.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

namespace mixpl {

class Options {
 public:
  /// @param what names the object in error messages, e.g. "retinanet". @throws ConfigError
  Options(const std::string& json, const std::string& what);
  ~Options();
  Options(Options&&) noexcept;

  bool has(const char* key) const;
  double number(const char* key, double fallback) const;
  int64_t integer(const char* key, int64_t fallback) const;
  bool boolean(const char* key, bool fallback) const;
  std::string text(const char* key, const std::string& fallback) const;
  std::vector<double> numbers(const char* key, const std::vector<double>& fallback) const;
  std::vector<std::string> texts(const char* key) const;
  /// The nested object under `key`, empty when absent.
  Options object(const char* key) const;
  /// Those in the array under `key`, none when absent. Errors name them by their index.
  std::vector<Options> objects(const char* key) const;

  /// The value as JSON text, "" when absent.
  std::string raw(const char* key) const;
  /// @throws ConfigError naming the first key that nobody asked for
  void finish() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mixpl
