// The charts by name. Each makes of entries, a width and the runs { nodes, plots } and perhaps the columns they
// are in, or a sentence where there is nothing to draw.

const CHARTS = { speed, roofline, size, batch, history };
