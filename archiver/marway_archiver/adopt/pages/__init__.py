"""A report of `marway adopt` as a page: once what it says, then as Markdown and as HTML."""
