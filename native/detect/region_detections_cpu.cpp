#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "detect/nms.h"
#include "detect/region_detections.h"
#include "detect/regions_math.h"

namespace mixpl::cpu {

PendingDetections detect_regions(const Regions& regions, const std::vector<Tensor>& logits,
                                 const RegionDecoder& decoder, const Tensor& sizes,
                                 const RegionDetectionOptions& o) {
  const int64_t classes = logits[0].size(1) - 1, images = regions.images();
  const StageLogits logit(logits);
  const RegionDecoderView decode(decoder);
  const Box* region = boxes_in(regions.boxes);
  const int32_t* image = regions.image.data<int32_t>();
  std::vector<Detections> found(images);
  parallel_for(images, int64_t{1}, [&](int64_t n) {
    std::vector<Box> candidates;
    std::vector<float> scores;
    std::vector<int32_t> labels;
    std::vector<float> p(classes + 1);
    for (int64_t r = 0; r < regions.size(); ++r) {
      if (image[r] != n) continue;
      for (int64_t c = 0; c <= classes; ++c) p[c] = logit[r * (classes + 1) + c];
      const float most = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (float& x : p) sum += x = std::exp(x - most);
      for (int64_t c = 0; c < classes; ++c) {
        const float score = static_cast<float>(p[c] / sum);
        if (!(score > o.score_thr)) continue;
        const Box box = clip_box(decode(r, c, region[r]), sizes_in(sizes)[n]);
        if (!detectable(box, o.min_size)) continue;
        candidates.push_back(box);
        scores.push_back(score);
        labels.push_back(static_cast<int32_t>(c));
      }
    }
    Detections& mine = found[n];
    for (int32_t i : nms(candidates, scores, labels, o.nms_iou, o.max_per_image)) {
      const Box& b = candidates[i];
      mine.boxes.insert(mine.boxes.end(), {b.x1, b.y1, b.x2, b.y2});
      mine.scores.push_back(scores[i]);
      mine.labels.push_back(labels[i]);
    }
  });
  return found;
}

}  // namespace mixpl::cpu
