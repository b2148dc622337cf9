"""When not to answer: calibrated confidence of statements in a report, and a check of the input images."""
