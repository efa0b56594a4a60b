"""A report's sections as text, Markdown, HTML, LaTeX and CSV."""
