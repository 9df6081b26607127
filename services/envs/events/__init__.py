"""The bus: subscribers that call the service, and the event stream read for users."""
