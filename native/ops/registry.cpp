#include "ops/registry.h"

#include <map>

#include "core/error.h"

namespace mixpl {
namespace {

std::map<std::string, NamedOp>& table() {
  static auto* ops = new std::map<std::string, NamedOp>;
  return *ops;
}

}  // namespace

bool register_op(const std::string& name, NamedOp op) {
  return table().emplace(name, std::move(op)).second;
}

const NamedOp& find_op(const std::string& name) {
  const auto found = table().find(name);
  if (found == table().end()) throw RangeError(str("runOp: unknown op '", name, "'"));
  return found->second;
}

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& entry : table()) names.push_back(entry.first);
  return names;
}

}  // namespace mixpl
