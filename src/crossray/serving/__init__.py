"""Finished models at work: reports for images and for prepared datasets."""
