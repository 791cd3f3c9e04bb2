// Finds who reads or writes where no tensor is, code included that oneDNN generates: for tests,
// with MIXPL_CHECK_MEMORY=1.
#pragma once

#include <cstdint>

namespace mixpl::fence {

/// On both sides of a block; a page, so that blocks stay as aligned as they are.
constexpr int64_t kBytes = 4096;

/// Whether MIXPL_CHECK_MEMORY=1 is set.
bool is_wanted();
/// Fills the block's `bytes`, and kBytes before and after them, with what is NaN in all types.
void build(char* block, int64_t bytes);
/// Ends the process with a message if a fence has been written to.
void check(const char* block, int64_t bytes);

}  // namespace mixpl::fence
