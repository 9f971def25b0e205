"Recorder, loggers, trackers: what is kept of a run."
