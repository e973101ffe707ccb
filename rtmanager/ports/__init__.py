"""What the service needs from the world, as interfaces."""
