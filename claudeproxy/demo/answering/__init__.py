"""What the stand-in answers: :func:`.answer.answer`, by the orders in the request."""
