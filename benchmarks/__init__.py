"""This pipeline beside what people would use in its place, and beside the floor, on the same work."""
