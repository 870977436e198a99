"""What a person sees in a browser: templates, their layout, their security headers. Private.

The pages are in ``templates/``, one file each, in plain HTML with Jinja2; ``style.css`` is the
stylesheet of all of them. A page runs no script, and its security headers forbid it to.
"""
