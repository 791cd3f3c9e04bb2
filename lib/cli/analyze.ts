import type { Command } from 'commander';
import { addAnalyzeCam } from './analyze/cam.js';
import { addAnalyzeGradients } from './analyze/gradients.js';
import { addAnalyzePseudoLabels } from './analyze/pseudo-labels.js';

/** The paper's analyses; each command is a file of its own. */
export function addAnalyzeCommands(program: Command): void {
  const analyze = program
    .command('analyze')
    .description('compare what a student learned from with what is really in the images');
  addAnalyzePseudoLabels(analyze);
  addAnalyzeGradients(analyze);
  addAnalyzeCam(analyze);
}
