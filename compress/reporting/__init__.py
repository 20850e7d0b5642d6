"""What `compress.report` shows: groups of bundles, their plots, tables and sentences, and the page around them."""
