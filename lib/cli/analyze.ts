import type { Command } from 'commander';
import { addAnalyzeCam } from './analyze/cam.js';
import { addAnalyzeGradients } from './analyze/gradients.js';
import { addAnalyzePseudoLabels } from './analyze/pseudo-labels.js';

/** The paper's analyses; each command is a file of its own. */
export function addAnalyzeCommands(program: Command): void {
  const analyze = program
    .command('analyze')
    .description('what a training learned from, beside what is there');
  addAnalyzePseudoLabels(analyze);
  addAnalyzeGradients(analyze);
  addAnalyzeCam(analyze);
}
