#include "models/transformer/memory_encoder.h"

#include "core/context.h"
#include "ops/add/add.h"
#include "ops/gather_rows/gather_rows.h"
#include "ops/reshape/reshape.h"
#include "ops/tokens/tokens.h"

namespace mixpl {

MemoryEncoderOptions MemoryEncoderOptions::read(const Options& options,
                                                const MemoryEncoderOptions& defaults) {
  MemoryEncoderOptions out = defaults;
  out.backbone = BackboneOptions::read(options.object("backbone"));
  out.neck = ChannelMapperOptions::read(options.object("neck"), out.neck);
  if (out.neck.channels % 4)
    throw ConfigError(str("neck.channels must be a multiple of 4, got ", out.neck.channels));
  out.transformer = DeformableTransformerOptions::read(options.object("transformer"),
                                                       out.transformer, out.neck.channels);
  out.positions.channels = out.neck.channels;
  return out;
}

MemoryEncoder::MemoryEncoder(const Scope& scope, const MemoryEncoderOptions& options)
    : positions_(options.positions),
      level_embedding_(scope.weight(
          "level_embed", {options.neck.num_outputs, options.neck.channels}, init::normal(1))),
      encoder_(scope.child("encoder"), options.neck.channels, options.neck.num_outputs,
               options.transformer) {}

Memory MemoryEncoder::operator()(const FeatureMaps& maps, const ImageBatch& images) const {
  Memory memory;
  memory.grid = grid_of(maps, images);
  memory.padding = padding_mask(memory.grid);
  memory.tokens = concat_tokens(maps);
  encoder_(memory, add_level_rows(sine_positions(memory.grid, positions_, memory.tokens.dtype()),
                                  level_embedding_, memory.grid.counts()));
  return memory;
}

ProposalEncoder::ProposalEncoder(const Scope& scope, int64_t channels)
    : linear_(scope, "memory_trans_fc", channels, channels, init::xavier_uniform()),
      norm_(scope, "memory_trans_norm", channels) {}

std::pair<Tensor, Tensor> ProposalEncoder::operator()(const Memory& memory) const {
  const TokenProposals proposals = token_proposals(memory.grid);
  return {norm_(linear_(mask_tokens(memory.tokens, proposals.mask))), proposals.logits};
}

TokenGrid grid_of(const std::vector<Tensor>& maps, const ImageBatch& images) {
  std::vector<MapSize> map_sizes;
  for (const Tensor& map : maps) map_sizes.push_back({map.size(1), map.size(2)});
  std::vector<ImageSize> sizes;
  for (const InputSize& size : images.sizes) sizes.push_back({size.height, size.width});
  return token_grid(map_sizes, {images.pixels.size(1), images.pixels.size(2)}, sizes,
                    images.pixels.device());
}

Tensor rows_of(const Tensor& x, const Tensor& rows) {
  const int64_t images = x.size(0), columns = x.size(2);
  return reshape(gather_rows(x, rows, columns), {images, rows.numel() / images, columns});
}

Tensor for_each_image(const Tensor& table, int64_t images, DType dtype) {
  return add(Tensor::zeros({images, table.size(0), table.size(1)}, dtype, table.device()), table);
}

}  // namespace mixpl
