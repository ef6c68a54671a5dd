"""Security headers that neither Django nor django-csp sends."""

UNUSED = "camera=(), microphone=(), geolocation=(), browsing-topics=()"


class SecurityHeaders:
    """Adds Permissions-Policy and CORP everywhere, and keeps signed-in answers out of caches."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        response.headers.setdefault("Permissions-Policy", UNUSED)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if not request.path.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response
