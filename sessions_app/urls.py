"""Addresses of the pages of sessions."""

from django.urls import path

from sessions_app import views

urlpatterns = [
    path("", views.session_list, name="session-list"),
    path("sessions/<slug:public_id>/", views.session_detail, name="session-detail"),
    path("sessions/<slug:public_id>/events/<int:seq>/", views.session_event, name="session-event"),
]
