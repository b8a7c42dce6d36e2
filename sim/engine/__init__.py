"""The simulation of one scenario; the only room that touches the event core and SimGrid."""
