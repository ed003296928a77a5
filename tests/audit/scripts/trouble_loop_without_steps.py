"""An endless loop without any training in it."""
import time

while True:
    time.sleep(0.01)
