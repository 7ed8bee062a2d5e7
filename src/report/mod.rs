//! Self-contained pages and SVG charts for results; knows numbers and labels only.
