"""Addresses of the pages of sessions."""

from django.urls import path

from auditweb.throttles import searching
from sessions_app import list_views, part_views, status_views, views, wall_views

urlpatterns = [
    path("", searching(list_views.session_list), name="session-list"),
    path("live/", wall_views.live_wall, name="live-wall"),
    path("demo/load/", list_views.demo_load, name="demo-load"),
    path("demo/remove/", list_views.demo_remove, name="demo-remove"),
    path("search/", searching(list_views.search_events), name="search"),
    path("sessions/<slug:public_id>/", views.session_detail, name="session-detail"),
    path("sessions/<slug:public_id>/runs/", part_views.session_runs, name="session-runs"),
    path("sessions/<slug:public_id>/tools/", part_views.session_tools, name="session-tools"),
    path("sessions/<slug:public_id>/records/", part_views.session_records, name="session-records"),
    path("sessions/<slug:public_id>/status/", status_views.session_status, name="session-status"),
    path("sessions/<slug:public_id>/events/<int:seq>/", views.session_event, name="session-event"),
]
