"""Names a day's weather from its measurements: softmax regression in numpy."""
