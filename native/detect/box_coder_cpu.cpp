#include "core/parallel.h"
#include "detect/box_coder.h"

namespace mixpl::cpu {

void code_rows(int64_t rows, const CodeRowsView& view) { parallel_for(rows, view); }

}  // namespace mixpl::cpu
