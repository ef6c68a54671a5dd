"""Addresses of the pages of status logs."""

from django.urls import path

from status_app import views

urlpatterns = [
    path("", views.status_list, name="status-list"),
    path("<slug:public_id>/", views.status_detail, name="status-detail"),
]
