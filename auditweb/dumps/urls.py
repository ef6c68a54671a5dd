"""Addresses of the pages of dumps."""

from django.urls import path

from auditweb.dumps import views

urlpatterns = [
    path("", views.dump_list, name="dump-list"),
    path("<slug:public_id>/", views.dump_detail, name="dump-detail"),
    path("<slug:public_id>/zone/", views.dump_zone, name="dump-zone"),
    path("<slug:public_id>/reimport/", views.dump_reimport, name="dump-reimport"),
    path("<slug:public_id>/import-anyway/", views.dump_anyway, name="dump-anyway"),
    path("<slug:public_id>/bad-lines/retry/", views.dump_bad_lines, name="dump-bad-lines"),
    path("<slug:public_id>/cancel/", views.dump_cancel, name="dump-cancel"),
    path("<slug:public_id>/retry/", views.dump_retry, name="dump-retry"),
    path("<slug:public_id>/delete/", views.dump_delete, name="dump-delete"),
]
