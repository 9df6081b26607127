"""The contract of the bus as AsyncAPI 3.0, made from the event models and from what each service has subscribed to."""
