"""The way of a job from stream to stream, compared with the barest loop that keeps what it has read."""
