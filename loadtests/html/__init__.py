"""Results as pages: one self-contained HTML file each, drawings inline, nothing loaded from anywhere."""
