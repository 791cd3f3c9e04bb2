"""DAB-DETR with mmdetection's choices, small, in float64: see detr.py, and detr_network.py for what it
shares with the other DETRs.

Written from its description, independently of the native code. Compared
with mmdetection's own layers (of 3.0), which were given the same weights and the same map: the names of
parameters are its own, losses agree within 1e-7, gradients within 2e-5 of their norm (its positions are f32).
"""
import math

import torch
import torch.nn.functional as F

from detr_network import CLASSES, DECODERS, EMBED, ENCODERS, FFN, HEADS, QUERIES, Detr, box_waves, inverse_sigmoid


class DabDetr(Detr):
    focal_eps = 1e-8

    def neck(self, image):
        """C5 alone, by a 1x1 convolution with a bias."""
        c = self.backbone(image)[-1]
        weight, bias = (self.p.get(f"neck.convs.0.conv.{k}", s) for k, s in (("weight", (EMBED, c.shape[1], 1, 1)), ("bias", (EMBED,))))
        return [F.conv2d(c, weight, bias)]

    def mlp(self, x, path, outs):
        for i, out in enumerate(outs):
            x = self.linear(x if i == 0 else F.relu(x), f"{path}.layers.{i}", out)
        return x

    def ffn(self, x, path):
        hidden = F.prelu(self.linear(x, path + ".layers.0.0", FFN), self.p.get(path + ".layers.0.1.weight", (1,)))
        return self.linear(hidden, path + ".layers.1", EMBED)

    def attend(self, q, k, v, hidden, path):
        """Of heads that may be wider in q and k than in v; the scores are over the root of q's width."""
        split = lambda t: t.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        q, k, v = split(q), split(k), split(v)
        score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if hidden is not None:
            score = score.masked_fill(hidden, -math.inf)
        return self.linear((score.softmax(-1) @ v).transpose(1, 2).flatten(2), path + ".out_proj", EMBED)

    def encode(self, x, grid):
        place, hidden = grid.positions(20, 0), grid.padding[:, None, None]
        for i in range(ENCODERS):
            at = f"encoder.layers.{i}"
            scaled = place * self.mlp(x, "encoder.query_scale", [EMBED, EMBED])
            x = self.layer_norm(x + self.attention(x, scaled, hidden, at + ".self_attn.attn"), at + ".norms.0")
            x = self.layer_norm(x + self.ffn(x, at + ".ffn"), at + ".norms.1")
        return x

    def self_attention(self, x, place, path):
        q, qp, k, kp, v = (self.linear(t, f"{path}.{n}_proj", EMBED) for t, n in (
            (x, "qcontent"), (place, "qpos"), (x, "kcontent"), (place, "kpos"), (x, "v")))
        return self.attend(q + qp, k + kp, v, None, path)

    def cross_attention(self, x, place, looks_at, memory, key_place, hidden, path, first):
        project = lambda t, name: self.linear(t, f"{path}.{name}_proj", EMBED)
        q, k, kp = project(x, "qcontent"), project(memory, "kcontent"), project(key_place, "kpos")
        if first:
            q, k = q + project(place, "qpos"), k + kp
        # Content and place side by side in each head.
        beside = lambda a, b: torch.cat([a.unflatten(-1, (HEADS, -1)), b.unflatten(-1, (HEADS, -1))], -1).flatten(2)
        return self.attend(beside(q, project(looks_at, "qpos_sine")), beside(k, kp), project(memory, "v"), hidden, path)

    def boxes(self, x):
        return self.mlp(x, "bbox_head.fc_reg", [EMBED, EMBED, 4])

    def transformer(self, tokens, grid, sizes, targets=None):
        n = len(tokens)
        memory, key_place, hidden = self.encode(tokens, grid), grid.positions(20, 0), grid.padding[:, None, None]
        references = self.p.get("query_embedding.weight", (QUERIES, 4)).expand(n, -1, -1).sigmoid()
        x, start, layers = torch.zeros(n, QUERIES, EMBED), references, []
        for i in range(DECODERS):
            at = f"decoder.layers.{i}"
            encoded = box_waves(references, [1, 0, 2, 3])
            place = self.mlp(encoded, "decoder.ref_point_head", [EMBED, EMBED])
            looks_at = encoded[..., :EMBED]
            if i > 0:
                looks_at = looks_at * self.mlp(x, "decoder.query_scale", [EMBED, EMBED])
            wide, high = (self.mlp(x, "decoder.ref_anchor_head", [EMBED, 2]).sigmoid() / references[..., 2:]).unbind(-1)
            y, x_ = looks_at.split(EMBED // 2, -1)
            looks_at = torch.cat([y * high[..., None], x_ * wide[..., None]], -1)
            x = self.layer_norm(x + self.self_attention(x, place, at + ".self_attn"), at + ".norms.0")
            seen = self.cross_attention(x, place, looks_at, memory, key_place, hidden, at + ".cross_attn", i == 0)
            x = self.layer_norm(x + seen, at + ".norms.1")
            x = self.layer_norm(x + self.ffn(x, at + ".ffn"), at + ".norms.2")
            state = self.layer_norm(x, "decoder.post_norm")
            layers.append((self.linear(state, "bbox_head.fc_cls", CLASSES), (self.boxes(state) + inverse_sigmoid(start, 1e-3)).sigmoid()))
            # The next layer's heads start from what keeps its gradient, the layer itself from what does not.
            start = (self.boxes(x) + inverse_sigmoid(references)).sigmoid()
            references = start.detach()
        return layers, None, None
