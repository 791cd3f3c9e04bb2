#include "core/onednn.h"

#include "core/parallel.h"

namespace mixpl::onednn {

using dnnl::memory;

dnnl::engine& engine() {
  static auto* e = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *e;
}

dnnl::stream& stream() {
  static thread_local dnnl::stream s(engine());
  return s;
}

memory::data_type type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return memory::data_type::f32;
    case DType::bf16:
      return memory::data_type::bf16;
    case DType::i32:
      return memory::data_type::s32;
    case DType::u8:
      return memory::data_type::u8;
    default:
      throw DTypeError(str("oneDNN has no type for ", dtype));
  }
}

namespace {
bool has(dnnl::cpu_isa isa) {
  const int bits = static_cast<int>(isa);
  return (static_cast<int>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}
}  // namespace

bool has_bf16() {
  static const bool yes = has(dnnl::cpu_isa::avx512_core);
  return yes;
}
bool has_amx() {
  static const bool yes = has(dnnl::cpu_isa::avx512_core_amx);
  return yes;
}

int64_t current_threads() { return num_threads(); }

Tensor scratchpad(const memory::desc& desc) {
  return Tensor::empty({static_cast<int64_t>(desc.get_size())}, DType::u8);
}

namespace {

struct Reorder {
  memory::desc from, to;
  int64_t threads;
  dnnl::reorder primitive;
};

}  // namespace

void reorder(const memory::desc& from, const void* source, const memory::desc& to, void* target) {
  static thread_local std::vector<Reorder> cache;
  const Reorder* found = nullptr;
  for (const Reorder& r : cache)
    if (r.threads == num_threads() && r.from == from && r.to == to) {
      found = &r;
      break;
    }
  if (!found) {
    if (cache.size() > 2048) cache.clear();
    const dnnl::reorder::primitive_desc pd(engine(), from, engine(), to);
    cache.push_back({from, to, num_threads(), dnnl::reorder(pd)});
    found = &cache.back();
  }
  memory in(from, engine(), const_cast<void*>(source)), out(to, engine(), target);
  dnnl::reorder(found->primitive).execute(stream(), in, out);
  stream().wait();
}

Tensor pack_weight(const Tensor& weight, const memory::desc& plain, const memory::desc& packed,
                   const std::function<Tensor()>& other_order) {
  if (plain == packed && !other_order) return weight;
  struct Pack {
    memory::desc plain, packed;
    Tensor tensor;
  };
  using Packs = std::shared_ptr<std::vector<Pack>>;
  const Packs packs = weight.derived<Packs>(other_order ? "onednn, other order" : "onednn",
                                            [] { return std::make_shared<std::vector<Pack>>(); });
  for (const Pack& pack : *packs)
    if (pack.plain == plain && pack.packed == packed) return pack.tensor;
  const Tensor source = other_order ? other_order() : weight, tensor = scratchpad(packed);
  reorder(plain, source.raw(), packed, tensor.raw());
  packs->push_back({plain, packed, tensor});
  return tensor;
}

}  // namespace mixpl::onednn
