"""The path of a job from stream to stream, against the simplest loop that stores what it reads."""
