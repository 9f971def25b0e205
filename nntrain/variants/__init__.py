"Subclasses of Learner."
