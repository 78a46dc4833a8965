"""Labels whose requests are divided: who answers, who gets copies, what is counted, and what follows from it."""
