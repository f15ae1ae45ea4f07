"""The book: which chapters have to run again, running them, the site around them."""
