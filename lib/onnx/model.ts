/** A detector's prediction as an ONNX model. */
import type { Detector } from '../detector/detector.js';
import { MixplError } from '../errors.js';
import { packageVersion } from '../version.js';
import type { Candidates } from './boxes.js';
import { buildDetections } from './detections.js';
import { Graph, type Value } from './graph.js';
import { buildStep, Tensors } from './network.js';
import type { OnnxModel } from './proto.js';
import { buildQueryDetections, buildQueryRegions } from './queries.js';
import {
  buildProposals,
  buildRefinement,
  buildRegionDetections,
  buildRegionFeatures,
} from './regions.js';

export { modelPieces } from './proto.js';

/** The oldest that has all that is used: every runtime of the last years takes it. */
const opset = 16;

/** @throws MixplError ERR_CONFIG for a detector without a form in ONNX */
export async function onnxModel(
  detector: Detector,
  {
    height,
    width,
    metadata,
  }: { height: number; width: number; metadata: Readonly<Record<string, string>> },
): Promise<OnnxModel> {
  const { preprocess, firstLabel } = detector;
  const { padDivisor } = preprocess;
  const padded = (side: number) => Math.ceil(side / padDivisor) * padDivisor;
  const trace = await detector.trace(
    { height: padded(height), width: padded(width) },
    { height, width },
  );
  const graph = new Graph();
  const tensors = new Tensors(graph, trace);
  tensors.set(
    trace.input,
    pixels(graph, preprocess, { down: padded(height) - height, right: padded(width) - width }),
    'nhwc',
  );
  const size = { height, width };
  let found: Candidates | null = null;
  for (const step of trace.steps) {
    if (step.op === 'denseDetections') found = buildDetections(tensors, step, { size, firstLabel });
    else if (step.op === 'regionDetections')
      found = buildRegionDetections(tensors, step, { size, firstLabel });
    else if (step.op === 'queryDetections')
      found = buildQueryDetections(tensors, step, { size, firstLabel });
    else if (step.op === 'queryRegions') buildQueryRegions(tensors, step, size);
    else if (step.op === 'proposeRegions') buildProposals(tensors, step, size);
    else if (step.op === 'regionFeatures') buildRegionFeatures(tensors, step);
    else if (step.op === 'refineRegions') buildRefinement(tensors, step, size);
    else buildStep(tensors, step);
  }
  if (!found)
    throw new MixplError(
      'ERR_CONFIG',
      `onnx: the detections of the detector must have a form in ONNX, got ${detector.options.type}`,
    );
  for (const [name, value] of Object.entries(found)) graph.name(value, name);
  return {
    ...{ name: detector.options.type, producerVersion: packageVersion(), opset },
    ...{ nodes: graph.nodes, initializers: graph.initializers, metadata },
    inputs: [{ name: 'image', type: 'uint8', shape: [1, height, width, 3] }],
    outputs: [
      { name: 'boxes', type: 'float32', shape: ['detections', 4] },
      { name: 'scores', type: 'float32', shape: ['detections'] },
      { name: 'labels', type: 'int64', shape: ['detections'] },
    ],
  };
}

/** 8-bit RGB to the network's input, zeros below and beside it. */
function pixels(
  graph: Graph,
  { mean, std, channelOrder }: Detector['preprocess'],
  { down, right }: { down: number; right: number },
): Value {
  let x = graph.op('Cast', ['image'], { to: 1 });
  if (channelOrder === 'bgr') x = graph.op('Gather', [x, graph.ints([2, 1, 0])], { axis: 3 });
  x = graph.op('Div', [graph.op('Sub', [x, graph.floats(mean)]), graph.floats(std)]);
  if (!down && !right) return x;
  return graph.op('Pad', [x, graph.ints([0, 0, 0, 0, 0, down, right, 0])]);
}
