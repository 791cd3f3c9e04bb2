#include "models/backbones/backbone.h"

#include "core/context.h"
#include "core/error.h"

namespace mixpl {

BackboneOptions BackboneOptions::read(const Options& options) {
  const std::string type = options.text("type", "resnet");
  if (type == "resnet") return {ResNetOptions::read(options)};
  if (type == "swin") return {SwinOptions::read(options)};
  throw ConfigError(str("backbone.type must be 'resnet' or 'swin', got '", type, "'"));
}

void BackboneOptions::set_freeze_statistics(bool on) {
  if (auto* resnet = std::get_if<ResNetOptions>(&network)) resnet->freeze_statistics = on;
}

static std::variant<ResNet, Swin> make(const Scope& scope, const BackboneOptions& options,
                                       int first_level) {
  if (const auto* swin = std::get_if<SwinOptions>(&options.network))
    return Swin(scope, *swin, first_level);
  return ResNet(scope, std::get<ResNetOptions>(options.network));
}

Backbone::Backbone(const Scope& scope, const BackboneOptions& options, int first_level)
    : network_(make(scope, options, first_level)) {}

std::vector<FeatureMaps> Backbone::operator()(const std::vector<Tensor>& batches) const {
  if (const auto* resnet = std::get_if<ResNet>(&network_)) return (*resnet)(batches);
  std::vector<FeatureMaps> pyramids;
  for (size_t i = 0; i < batches.size(); ++i) {
    const ContextScope scope(Context::current().of_pass(i));
    pyramids.push_back(std::get<Swin>(network_)(batches[i]));
  }
  return pyramids;
}

const std::vector<int64_t>& Backbone::channels() const {
  return std::visit(
      [](const auto& network) -> const std::vector<int64_t>& { return network.channels(); },
      network_);
}

}  // namespace mixpl
