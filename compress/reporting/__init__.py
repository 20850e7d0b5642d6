"""What `compress.report` shows: bundles in groups, their plots, tables and sentences, and the page."""
