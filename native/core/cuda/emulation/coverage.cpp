#include "core/cuda/emulation/coverage.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cstdlib>
#include <map>
#include <string>

#include "core/error.h"

namespace mixpl::cuda::emulation {

void note_launch(const std::source_location& where, int64_t threads) {
  static const char* const file = std::getenv("MIXPL_EMULATION_COVERAGE");
  if (!file) return;
  struct Counts {
    uint64_t launches = 0, threads = 0;
  };
  static std::map<std::string, Counts> places;  // run_grid holds a lock
  const std::string place = str(where.file_name(), ":", where.line(), "\t", where.function_name());
  Counts& counts = places[place];
  counts.threads += static_cast<uint64_t>(threads);
  if (!std::has_single_bit(++counts.launches)) return;
  const std::string line =
      str(getpid(), "\t", place, "\t", counts.launches, "\t", counts.threads, "\n");
  // One write of a short line: whole, whoever else appends.
  const int out = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0) return;
  [[maybe_unused]] const auto written = write(out, line.data(), line.size());
  close(out);
}

}  // namespace mixpl::cuda::emulation
