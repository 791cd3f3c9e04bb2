// Ops by name, for the low-level JavaScript API and the op tests: one generic call serves them all.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/options.h"
#include "core/tensor.h"

namespace mixpl {

/// An op as tensors and options in, tensors out.
using NamedOp = std::function<std::vector<Tensor>(const std::vector<Tensor>&, const Options&)>;

/// Adds an op under a camelCase name; call from a namespace-scope `const bool registered = ...`.
bool register_op(const std::string& name, NamedOp op);
/// @throws RangeError for an unknown name
const NamedOp& find_op(const std::string& name);
std::vector<std::string> op_names();

}  // namespace mixpl
