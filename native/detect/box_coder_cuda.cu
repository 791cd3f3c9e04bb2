#include "core/cuda/kernel.h"
#include "detect/box_coder.h"

namespace mixpl::cuda {

void code_rows(int64_t rows, const CodeRowsView& view) { for_each(rows, view); }

}  // namespace mixpl::cuda
