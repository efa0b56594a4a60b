"""What counts as a failure, one class a file: flags of runs, the rates and the means they give."""
