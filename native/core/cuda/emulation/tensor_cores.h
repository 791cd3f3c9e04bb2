// core/cuda/tensor_cores.h on the host, by the fragment layouts of the PTX manual.
#pragma once

#include <cmath>

namespace mixpl::cuda {

/// Of the block's dynamic shared memory, as if that began at 0.
inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const char*>(p) -
                               static_cast<const char*>(emulation::dynamic_shared_memory()));
}

inline void cp_async16(void* shared, const void* global, int valid_bytes = 16) {
  emulation::start_copy(shared, global, 16, valid_bytes);
}
inline void cp_async4(void* shared, const void* global, int valid_bytes = 4) {
  emulation::start_copy(shared, global, 4, valid_bytes);
}
inline void cp_async_commit() { emulation::commit_copies(); }
template <int N>
void cp_async_wait() {
  emulation::wait_for_copies(N);
}

namespace emulation {

inline void require_whole_warp(const Meeting& meeting, const char* operation) {
  if (meeting.present != kAllLanes)
    fail(std::string(operation) + " needs all 32 lanes of the warp");
}

template <int N, bool kTranspose>
void exchange_matrices(Meeting& meeting) {
  require_whole_warp(meeting, "ldmatrix");
  const uint16_t* rows[32];
  for (int l = 0; l < 32; ++l) std::memcpy(&rows[l], &meeting.lanes[l], sizeof rows[l]);
  for (int l = 0; l < 8 * N; ++l)
    if (reinterpret_cast<uintptr_t>(rows[l]) % 16 || !in_shared_memory(rows[l], 16))
      fail("ldmatrix: lane " + std::to_string(l) +
           " must give 16 bytes of shared memory at a multiple of 16");
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < N; ++i) {
      const int r = l / 4, c = 2 * (l % 4);
      const uint32_t low = kTranspose ? rows[8 * i + c][r] : rows[8 * i + r][c];
      const uint32_t high = kTranspose ? rows[8 * i + c + 1][r] : rows[8 * i + r][c + 1];
      const uint32_t pair = low | high << 16;
      std::memcpy(meeting.lanes[l].bytes + 4 * i, &pair, 4);
    }
}
template <int N, bool kTranspose>
void load_matrices(uint32_t (&r)[N], const void* row, const Where& where) {
  LaneData data = {};
  std::memcpy(&data, &row, sizeof row);
  meet(kTranspose ? "ldmatrix_trans" : "ldmatrix", kAllLanes, where, data,
       exchange_matrices<N, kTranspose>);
  std::memcpy(r, &data, sizeof r);
}

struct Fragments {
  float d[4];
  uint32_t a[4], b[2];
};
// a: lane l holds row l / 4 + 8 (i % 2) in register i; b and d: column l / 4 and 2 (l % 4).
// Products of bf16 and tf32 are exact in double; the sum is rounded once, where the hardware
// truncates now and then: equal within what the accumulator resolves.
template <bool kTf32>
void exchange_mma(Meeting& meeting) {
  require_whole_warp(meeting, "mma");
  constexpr int kDepth = kTf32 ? 8 : 16;
  double a[16][kDepth], b[kDepth][8];
  Fragments f[32];
  for (int l = 0; l < 32; ++l) {
    std::memcpy(&f[l], &meeting.lanes[l], sizeof(Fragments));
    const int group = l / 4, in_group = l % 4;
    if constexpr (kTf32) {
      const auto value = [](uint32_t bits) {
        return double(std::bit_cast<float>(bits & 0xffffe000u));
      };
      for (int i = 0; i < 4; ++i) a[group + 8 * (i % 2)][in_group + 4 * (i / 2)] = value(f[l].a[i]);
      for (int i = 0; i < 2; ++i) b[in_group + 4 * i][group] = value(f[l].b[i]);
    } else {
      const auto value = [](uint32_t pair, int half) {
        return double(std::bit_cast<float>(half ? pair & 0xffff0000u : pair << 16));
      };
      for (int i = 0; i < 4; ++i)
        for (int h = 0; h < 2; ++h)
          a[group + 8 * (i % 2)][2 * in_group + h + 8 * (i / 2)] = value(f[l].a[i], h);
      for (int i = 0; i < 2; ++i)
        for (int h = 0; h < 2; ++h) b[2 * in_group + h + 8 * i][group] = value(f[l].b[i], h);
    }
  }
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 4; ++i) {
      const int row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
      double sum = f[l].d[i];
      for (int k = 0; k < kDepth; ++k) sum += a[row][k] * b[k][column];
      f[l].d[i] = static_cast<float>(sum);
    }
    std::memcpy(&meeting.lanes[l], f[l].d, sizeof f[l].d);
  }
}
template <bool kTf32>
void multiply(const char* operation, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
              const Where& where) {
  Fragments f;
  std::memcpy(f.d, d, sizeof d);
  std::memcpy(f.a, a, sizeof a);
  std::memcpy(f.b, b, sizeof b);
  LaneData data = {};
  std::memcpy(&data, &f, sizeof f);
  meet(operation, kAllLanes, where, data, exchange_mma<kTf32>);
  std::memcpy(d, &data, sizeof d);
}

}  // namespace emulation

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Where where = Where::current()) {
  emulation::load_matrices<4, false>(r, row, where);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Where where = Where::current()) {
  emulation::load_matrices<4, true>(r, row, where);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, Where where = Where::current()) {
  emulation::load_matrices<2, false>(r, row, where);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, Where where = Where::current()) {
  emulation::load_matrices<2, true>(r, row, where);
}
inline void ldmatrix_x1(uint32_t (&r)[1], const void* row, Where where = Where::current()) {
  emulation::load_matrices<1, false>(r, row, where);
}
inline void ldmatrix_x1_trans(uint32_t (&r)[1], const void* row, Where where = Where::current()) {
  emulation::load_matrices<1, true>(r, row, where);
}

inline void mma_bf16_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              Where where = Where::current()) {
  emulation::multiply<false>("mma_bf16_m16n8k16", d, a, b, where);
}
inline void mma_tf32_m16n8k8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             Where where = Where::current()) {
  emulation::multiply<true>("mma_tf32_m16n8k8", d, a, b, where);
}
inline uint32_t to_tf32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  // Half of the last kept bit, added to the magnitude: ties go away from zero; infinity stays.
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

}  // namespace mixpl::cuda
