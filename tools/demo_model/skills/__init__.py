"""The skills of the demo model: each file asks and answers one kind of question."""
