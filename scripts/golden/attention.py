"""Records test/golden/ops/attention.json from torch.nn.MultiheadAttention whose projections are the
identity: attention and nothing else, with torch's own handling of masks; and
test/golden/ops/multihead-attention.json with projections.

    /usr/bin/python3 scripts/golden/attention.py
"""

import torch

from ops import SEED, case, write


def recorded(name, images, queries, keys, heads, depth, key_mask=False, mask=False, bias=False):
    width = heads * depth
    q, k, v = (torch.randn(images, rows, width, requires_grad=True) for rows in (queries, keys, keys))
    layer = torch.nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(width).repeat(3, 1))
        layer.out_proj.weight.copy_(torch.eye(width))
    inputs = {"q": q, "k": k, "v": v}
    options = {"heads": heads}
    padding = added = None
    if bias:
        inputs["bias"] = torch.randn(images, heads, queries, keys, requires_grad=True)
        added = inputs["bias"].reshape(-1, queries, keys)
        options["hasBias"] = True
    if key_mask or mask:
        hidden = torch.rand(images if key_mask else 1, 1 if key_mask else queries, keys) < 0.4
        hidden[..., 0] = False
        inputs["mask"] = hidden.int()
        options["hasMask"] = True
        if key_mask:
            padding = hidden[:, 0]
        else:
            added = hidden[0]
    out, _ = layer(q, k, v, key_padding_mask=padding, attn_mask=added)
    dout = torch.randn_like(out)
    out.backward(dout)
    gradients = {n: t.grad for n, t in inputs.items() if t.requires_grad}
    return case(name, inputs, options, out, gradients, dout)


def projected(name, same, queries, keys, heads, depth, key_mask=False):
    images, width = 2, heads * depth
    layer = torch.nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        layer.in_proj_bias.normal_(std=0.3)
        layer.out_proj.bias.normal_(std=0.3)
    inputs = {"query": torch.randn(images, queries, width, requires_grad=True)}
    if same == "none":
        inputs["key"] = torch.randn(images, keys, width, requires_grad=True)
    if same != "value":
        inputs["value"] = torch.randn(images, keys, width, requires_grad=True)
    inputs |= {"inWeight": layer.in_proj_weight, "inBias": layer.in_proj_bias,
               "outWeight": layer.out_proj.weight, "outBias": layer.out_proj.bias}
    options, padding = {"heads": heads, "same": same}, None
    if key_mask:
        padding = torch.rand(images, keys) < 0.4
        padding[:, 0] = False
        inputs["mask"] = padding[:, None].int()
        options["hasMask"] = True
    query = inputs["query"]
    out, _ = layer(query, inputs.get("key", query), inputs.get("value", query),
                   key_padding_mask=padding)
    dout = torch.randn_like(out)
    out.backward(dout)
    gradients = {n: t.grad for n, t in inputs.items() if t.requires_grad}
    return case(name, inputs, options, out, gradients, dout)


torch.manual_seed(SEED)
write("attention", "torch.nn.MultiheadAttention with identity projections", [
    recorded("plain", 2, 5, 7, 2, 8),
    recorded("padded keys", 2, 4, 9, 2, 4, key_mask=True),
    recorded("a mask of queries and keys", 2, 6, 6, 2, 4, mask=True),
    recorded("a bias for each image", 2, 4, 5, 3, 4, bias=True),
    recorded("a bias and padded keys", 2, 4, 9, 1, 4, bias=True, key_mask=True),
], by="scripts/golden/attention.py")
write("multihead-attention", "torch.nn.MultiheadAttention", [
    projected("cross-attention with padded keys", "none", 4, 6, 2, 8, key_mask=True),
    projected("query is key", "key", 6, 6, 2, 8),
    projected("query is key and value", "value", 6, 6, 2, 8, key_mask=True),
], by="scripts/golden/attention.py")
