// One factory per detector; models/detector.cpp holds the table.
#pragma once

#include "core/options.h"
#include "models/detector.h"

namespace mixpl {

std::unique_ptr<Detector> create_atss(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_cascade_rcnn(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_centernet(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_dab_detr(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_deformable_detr(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_dino(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_faster_rcnn(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_fcos(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_gfl(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_paa(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_retinanet(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_sparse_rcnn(const Options& options, uint64_t seed);
std::unique_ptr<Detector> create_tood(const Options& options, uint64_t seed);

}  // namespace mixpl
