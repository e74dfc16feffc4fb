"""The configuration as files, references and a watch; the pure models are in `core/config`.

All files are read as of one moment, or not at all. What cannot be read or listed is reported as a problem and changes
nothing. Nothing but a regular file is opened, and nothing waits for a writer. No message repeats what is in a file.
"""
