from django.urls import path

from auditweb.teams import views

urlpatterns = [
    path("signin/<str:token>/", views.sign_in_link, name="sign-in-link"),
    path("team/", views.member_list, name="member-list"),
    path("team/members/add/", views.member_add, name="member-add"),
    path("team/members/change/", views.member_change, name="member-change"),
    path("team/members/remove/", views.member_remove, name="member-remove"),
    path("team/keys/create/", views.key_create, name="key-create"),
    path("team/keys/<str:public_id>/revoke/", views.key_revoke, name="key-revoke"),
    path("team/audit/", views.audit_log, name="audit-log"),
]
