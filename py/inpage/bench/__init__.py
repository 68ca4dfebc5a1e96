"""The benchmark's prompts by their old name; all else is in the package `inpage_bench`."""
