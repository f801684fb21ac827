"""Models come in, models go out: work directories from others' folders, and those from ours."""
