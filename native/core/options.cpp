#include "core/options.h"

#include <rapidjson/document.h>
#include <rapidjson/error/en.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include "core/error.h"

namespace mixpl {

namespace {

std::string as_json(const rapidjson::Value& value) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  value.Accept(writer);
  return buffer.GetString();
}

}  // namespace

struct Options::Impl {
  rapidjson::Document document;
  std::string what;
  mutable std::set<std::string> asked;

  const rapidjson::Value* find(const char* key) const {
    asked.insert(key);
    const auto it = document.FindMember(key);
    return it == document.MemberEnd() || it->value.IsNull() ? nullptr : &it->value;
  }
  [[noreturn]] void fail(const char* key, const char* expected, const rapidjson::Value& got) const {
    throw ConfigError(str(what, ": ", key, " must be ", expected, ", got ", as_json(got)));
  }
};

Options::Options(const std::string& json, const std::string& what) : impl_(new Impl) {
  impl_->what = what;
  impl_->document.Parse(json.empty() ? "{}" : json.c_str());
  if (impl_->document.HasParseError())
    throw ConfigError(str(what, ": options must be JSON, got an error at character ",
                          impl_->document.GetErrorOffset(), ": ",
                          rapidjson::GetParseError_En(impl_->document.GetParseError())));
  if (!impl_->document.IsObject())
    throw ConfigError(str(what, ": options must be an object, got ", json));
}
Options::~Options() = default;
Options::Options(Options&&) noexcept = default;

bool Options::has(const char* key) const { return impl_->find(key) != nullptr; }

double Options::number(const char* key, double fallback) const {
  const auto* v = impl_->find(key);
  if (!v) return fallback;
  if (!v->IsNumber()) impl_->fail(key, "a number", *v);
  return v->GetDouble();
}

int64_t Options::integer(const char* key, int64_t fallback) const {
  const auto* v = impl_->find(key);
  if (!v) return fallback;
  // Counts and sizes; beyond 31 bits their products would no longer be exact anywhere.
  if (!v->IsInt64()) impl_->fail(key, "an integer", *v);
  if (!v->IsInt()) impl_->fail(key, "an integer in [-2^31, 2^31)", *v);
  return v->GetInt();
}

bool Options::boolean(const char* key, bool fallback) const {
  const auto* v = impl_->find(key);
  if (!v) return fallback;
  if (!v->IsBool()) impl_->fail(key, "true or false", *v);
  return v->GetBool();
}

std::string Options::text(const char* key, const std::string& fallback) const {
  const auto* v = impl_->find(key);
  if (!v) return fallback;
  if (!v->IsString()) impl_->fail(key, "a string", *v);
  return v->GetString();
}

std::vector<double> Options::numbers(const char* key, const std::vector<double>& fallback) const {
  const auto* v = impl_->find(key);
  if (!v) return fallback;
  if (!v->IsArray()) impl_->fail(key, "an array of numbers", *v);
  std::vector<double> out;
  for (const auto& item : v->GetArray()) {
    if (!item.IsNumber()) impl_->fail(key, "an array of numbers", *v);
    out.push_back(item.GetDouble());
  }
  return out;
}

std::vector<std::string> Options::texts(const char* key) const {
  const auto* v = impl_->find(key);
  if (!v) return {};
  if (!v->IsArray()) impl_->fail(key, "an array of strings", *v);
  std::vector<std::string> out;
  for (const auto& item : v->GetArray()) {
    if (!item.IsString()) impl_->fail(key, "an array of strings", *v);
    out.emplace_back(item.GetString());
  }
  return out;
}

std::string Options::raw(const char* key) const {
  const auto* v = impl_->find(key);
  return v ? as_json(*v) : "";
}

Options Options::object(const char* key) const {
  const auto* v = impl_->find(key);
  if (v && !v->IsObject()) impl_->fail(key, "an object", *v);
  return Options(raw(key), str(impl_->what, ".", key));
}

std::vector<Options> Options::objects(const char* key) const {
  const auto* v = impl_->find(key);
  if (!v) return {};
  if (!v->IsArray()) impl_->fail(key, "an array of objects", *v);
  std::vector<Options> out;
  for (const auto& item : v->GetArray()) {
    if (!item.IsObject()) impl_->fail(key, "an array of objects", *v);
    out.emplace_back(as_json(item), str(impl_->what, ".", key, ".", out.size()));
  }
  return out;
}

void Options::finish() const {
  for (const auto& member : impl_->document.GetObject())
    if (!impl_->asked.count(member.name.GetString()))
      throw ConfigError(str(impl_->what, ": unknown option '", member.name.GetString(), "'"));
}

}  // namespace mixpl
